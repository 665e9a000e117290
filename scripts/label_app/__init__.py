"""A MONAI Label app: a viewer asks for the labels of one scan on another, see docs/monai_label.md."""
