"""Neural Correspondence Field: registration of one pair of 3D images, as a MONAI bundle."""
