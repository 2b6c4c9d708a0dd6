"""Where data enters: recorded files and the simulator, as one tape of frames.

What is here reads the outside world and may be wrong about it: every failure of a file is a `UserError` that names the
file and the place. No trading logic enters; a bad price is passed on for the quality operator to reject.
"""
