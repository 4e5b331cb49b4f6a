"""What the tests run against: real servers, real routers, a proxy between them."""
