package fleet

// AllowName is the name of an allow block, a DNS label.
type AllowName string

// Allow says who may reach nodes over the mesh. A node that any Allow leads to
// is reached by nobody else; a node that none leads to is reached by all.
type Allow struct {
	Name  AllowName
	From  []Party // none: every node
	To    []Party
	Ports []Ports // none: every protocol, every port
}

// Party is one node, or all nodes of a site: exactly one of the two is set.
type Party struct {
	Site SiteName
	Node NodeName
}

// Protocol is one that has ports.
type Protocol string

// The protocols that an Allow can name.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Ports are those from First to Last, both included, as a client dials them.
type Ports struct {
	Protocol    Protocol
	First, Last uint16 // 1 to 65535
}

// Members are the nodes that the parties consist of, each once, in the order of
// the file.
func (f *Fleet) Members(parties []Party) []Node {
	named := make(map[Party]bool, len(parties))
	for _, p := range parties {
		named[p] = true
	}
	var out []Node
	for _, n := range f.Nodes {
		if named[Party{Node: n.Name}] || named[Party{Site: n.Site}] {
			out = append(out, n)
		}
	}
	return out
}
