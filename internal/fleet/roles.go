package fleet

// Roles are what a node does for the others.
type Roles struct {
	Hub     bool // relays for those who cannot reach each other
	Server  bool // votes in the control plane
	Ingress bool // takes HTTPS from the internet
}

// maxServers bounds the derived control plane: Raft gains nothing from more
// than five voters (Ongaro's thesis, section 5.4; Nomad's own advice).
const maxServers = 5

// Roles derives every node's roles (design, D3): a public IPv4 address makes a
// hub and an ingress, a datacenter makes a server. Servers are an odd number,
// at most five, spread over the sites; a fleet without a datacenter takes its
// public nodes, and one without those takes all. An override in the file wins.
func (f *Fleet) Roles() map[NodeName]Roles {
	roles := make(map[NodeName]Roles, len(f.Nodes))
	servers := f.derivedServers()
	for _, n := range f.Nodes {
		_, public := n.PublicV4()
		roles[n.Name] = Roles{
			Hub:     override(n.Hub, public),
			Server:  override(n.Server, servers[n.Name]),
			Ingress: override(n.Ingress, public),
		}
	}
	return roles
}

func override(said *bool, derived bool) bool {
	if said != nil {
		return *said
	}
	return derived
}

// derivedServers picks voters among the nodes whose file entry leaves the
// choice open, so that those and the ones named by hand are an odd number.
func (f *Fleet) derivedServers() map[NodeName]bool {
	named, candidates := 0, f.serverCandidates()
	for _, n := range f.Nodes {
		if n.Server != nil && *n.Server {
			named++
		}
	}
	total := min(named+len(candidates), max(named, maxServers))
	if total%2 == 0 && total > named {
		total--
	}
	chosen := make(map[NodeName]bool)
	for _, n := range spread(candidates)[:total-named] {
		chosen[n.Name] = true
	}
	return chosen
}

func (f *Fleet) serverCandidates() []Node {
	kind := make(map[SiteName]SiteKind, len(f.Sites))
	for _, s := range f.Sites {
		kind[s.Name] = s.Kind
	}
	tiers := []func(Node) bool{
		func(n Node) bool { return kind[n.Site] == Datacenter },
		func(n Node) bool { return len(n.Public) > 0 },
		func(Node) bool { return true },
	}
	for _, fits := range tiers {
		var open []Node
		some := false
		for _, n := range f.Nodes {
			if !fits(n) {
				continue
			}
			some = true
			if n.Server == nil {
				open = append(open, n)
			}
		}
		if some {
			return open
		}
	}
	return nil
}

// spread orders nodes so that a prefix of any length covers as many sites as
// it can: the first of each site, then the second of each, and so on.
func spread(nodes []Node) []Node {
	var order []SiteName
	bySite := make(map[SiteName][]Node)
	for _, n := range nodes {
		if len(bySite[n.Site]) == 0 {
			order = append(order, n.Site)
		}
		bySite[n.Site] = append(bySite[n.Site], n)
	}
	out := make([]Node, 0, len(nodes))
	for round := 0; len(out) < len(nodes); round++ {
		for _, s := range order {
			if round < len(bySite[s]) {
				out = append(out, bySite[s][round])
			}
		}
	}
	return out
}
