"""The live page of `harness watch --web`: what is the state of a sweep, in a browser, while it runs?

Readers (`sweep_feed`, `folder_feed`) read the directories of runs, only what changed, and put values into a
`PageState`; `live_server` sends each browser the values that it has not seen. The numbers come from `compare`
and `report`, as those of the offline report do; the browser draws, and computes nothing.
"""
