"""What people and other services are told: notices, the outbox, mail, webhooks."""
