"""What is deployed agrees with the program: manifests, rules, dashboards, images and their documents."""
