"""The colours of every picture and page: few, and everybody can tell them apart.

They are of Okabe and Ito's palette (2008), made for colour-blind readers; its yellow is left out, for it is lost on white. Beside
``style.py`` because a page without pictures needs no matplotlib.
"""

BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
INK, GREY, LINE = "#1F2328", "#6B7280", "#E5E7EB"
SERIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, INK)  # for curves in one picture, in this order
