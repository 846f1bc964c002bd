"""How work comes in from outside: one file a kind of receiver, each with the shape of `services.intake.Kind`."""
