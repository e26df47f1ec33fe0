"""Options of the stages, by what they are for; `milan_pipeline/cli/recipes.py` finds them."""
