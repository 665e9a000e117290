"""Names of the files that a series writes beside the folders of its phases."""

SERIES_FILE = "series.json"
SERIES_TABLE = "series.tsv"
SERIES_REPORT = "report.html"
PATHS_FILE = "paths.csv"
FILM_FILE, CURVES_FILE = "film.gif", "curves.png"
LABELS_FOLDER = "labels"
