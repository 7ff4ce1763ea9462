"""How a heat map or box was found, as the tables spell it."""

SIMILARITY_MAP, GRAD_CAM, CENTRE_PRIOR, RANDOM = "similarity-map", "grad-cam", "centre-prior", "random"
BASELINES = (GRAD_CAM, SIMILARITY_MAP, CENTRE_PRIOR, RANDOM)
"""What comes for free beside Mammo-FActOR."""

WITHOUT_MODEL = (CENTRE_PRIOR, RANDOM)
"""Baselines in which no model has a part."""

SHUFFLED = "-shuffled"
"""Ends the protocol of a control: the same result held against the boxes of other patients' images."""
