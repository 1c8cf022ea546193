"""The three stage-1 objectives: ITC, ITM and ITG."""
