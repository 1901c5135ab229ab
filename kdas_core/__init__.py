"""The method of KDAS, knowledge distillation via attention supervision, in one small package.

The chapters in ``book/`` call these modules; nothing here imports the book.
"""

__version__ = "0.1.0"


class UserError(ValueError):
    """Something in the input is wrong; the message is one sentence with the file, the fact and the
    way out.
    """
