"use strict";
// Sorts the table of pairs: the first press of a column sorts upwards, the next one downwards; what is missing stays last.
(function () {
  const table = document.getElementById("pairs");
  if (!table) return;
  const heads = Array.from(table.tHead.rows[0].cells), body = table.tBodies[0];
  function value(row, column) { return row.cells[column].dataset.value; }
  function order(column, sign) {
    return function (a, b) {
      const x = value(a, column), y = value(b, column);
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (column ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true }));
    };
  }
  heads.forEach(function (head, column) {
    head.firstElementChild.addEventListener("click", function () {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      Array.from(body.rows).sort(order(column, up ? 1 : -1)).forEach((row) => body.appendChild(row));
    });
  });
  document.body.dataset.ready = "true";
})();
