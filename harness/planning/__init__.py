"""Time of trials and studies, and the progress of a study."""
