"""What runs on the far side of the sandbox: the launcher, the confinement, and the two roles that run a program.

Nothing here imports more of the package than this folder: a jail holds no secret, no expected value, no setting.
"""
