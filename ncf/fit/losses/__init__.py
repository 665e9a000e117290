"""Loss functions, one a file: what a config names as the ``loss`` of a term. MONAI's and torch's serve as well."""
