package ingress

// Names of fields in the log.
const (
	fieldAddress = "address"
	fieldError   = "error"
	fieldHost    = "host"
	fieldNode    = "node"
	fieldRoutes  = "routes"
	fieldService = "service"
	fieldWhy     = "why"
)
