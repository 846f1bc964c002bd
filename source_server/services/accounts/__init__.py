"""Who people are and what they own: accounts, keys, sessions, enrolment, projects."""
