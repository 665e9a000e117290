"""DICOM objects written: a warped series, registrations, structures, segmentations and doses.

Each is built from the fixed scan's patient, study and frame of reference, and from no attribute that is not named here.
"""
