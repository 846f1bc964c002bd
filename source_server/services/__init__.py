"""One file for each thing the product does; a service is told its stores and its clock."""
