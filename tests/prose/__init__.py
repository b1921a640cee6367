"""The wording check of ``make lint``: phrases that are not the field's terms."""
