"""The walk through the rooms: plan.py decides, run.py walks, stages.py calls the rooms, state.py remembers."""
