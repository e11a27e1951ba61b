"""`python -m g2sd_deploy` is the `g2sd` command."""

from g2sd_deploy.cli import main

main()
