"""The page of the label server, of a schema as FastAPI makes it: all endpoints, no script, nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ncf.label.overview import POLICY, overview
from tests.browser import browser, found

SCHEMA = {
    "openapi": "3.1.0",
    "info": {"title": "NCF", "version": "1.2.3"},
    "paths": {
        "/infer/{model}": {
            "post": {
                "summary": "Infer",
                "description": "Register a scan by its id.\n\nArgs:\n    model: its name.",
                "parameters": [
                    {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}},
                    {
                        "name": "output",
                        "in": "query",
                        "schema": {"anyOf": [{"$ref": "#/x/ResultType"}, {"type": "null"}]},
                    },
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 5}},
                ],
                "requestBody": {
                    "content": {
                        "application/x-www-form-urlencoded": {"schema": {"$ref": "#/components/schemas/Body_infer"}}
                    }
                },
            }
        },
        "/odd": {"get": {"summary": "<script>alert(1)</script>"}, "head": {}},
    },
    "components": {
        "schemas": {
            "Body_infer": {"properties": {"params": {"type": "string", "default": "{}"}}, "required": ["params"]},
        }
    },
}


def test_every_endpoint_is_listed_with_what_it_takes() -> None:
    text = overview(SCHEMA)
    assert "<h1>NCF label server, version 1.2.3</h1>" in text
    assert re.findall(r"<h2><code>(.*?)</code></h2>", text) == ["POST /infer/{model}", "GET /odd", "HEAD /odd"]
    assert "<p>Register a scan by its id.</p>" in text and "Args:" not in text
    cells = [re.findall(r"<td>(?:<code>)?(.*?)(?:</code>)?</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    assert [row for row in cells if row] == [
        ["model", "path", "string", "required"],
        ["output", "query", "ResultType", ""],
        ["limit", "query", "integer", "5"],
        ["params", "form", "string", "required"],
    ]


def test_nothing_is_run_and_nothing_comes_from_elsewhere() -> None:
    text = overview(SCHEMA)
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,", "/openapi.json"] and "url(" not in text
    assert "http" not in text and "default-src 'none'" in POLICY["Content-Security-Policy"]


@pytest.mark.slow
def test_in_the_browser_it_asks_for_nothing(tmp_path: Path) -> None:
    program = found()
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY["Content-Security-Policy"]}">'
    (tmp_path / "page.html").write_text(
        overview(SCHEMA).replace("<head>", f"<head>{policy}").replace("<body>", '<body data-ready="true">'), "utf-8"
    )
    with browser(program, tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        assert page.complaints == [] and page.run("document.querySelectorAll('h2').length") == 3
        assert [url for url in page.requests if not url.startswith("data:")] == [(tmp_path / "page.html").as_uri()]
