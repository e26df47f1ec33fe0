"""`python -m milan_pipeline`: the command line where no script is at hand, as for torchrun."""

from milan_pipeline.cli.main import main

if __name__ == "__main__":
    main()
