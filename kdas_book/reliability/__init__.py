"""When is the student wrong? Probabilities that hold, a promise about missed pixels, false alarms,
strange pictures and spoilt ones (chapter 12).
"""
