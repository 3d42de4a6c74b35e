package mesh

// The names of fields in the log, all of them.
const (
	fieldError  = "error"
	fieldFor    = "for"
	fieldFrom   = "from"
	fieldKey    = "key"
	fieldNode   = "node"
	fieldPath   = "path"
	fieldPeer   = "peer"
	fieldPeers  = "peers"
	fieldPort   = "port"
	fieldStatus = "status"
	fieldVia    = "via"
	fieldWhy    = "why"
)
