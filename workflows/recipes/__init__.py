"""Options of the stages, by what they are for; `milan_pipeline/recipes.py` finds them."""
