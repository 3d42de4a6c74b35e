package sim

// Direct says whether machines behind two NATs must find a direct path: where
// either side lets strangers in, where both keep one mapping for all, or where one
// does and minds the address alone (RFC 4787, 4.1 and 5, both ways round).
func Direct(a, b NAT) bool {
	oneWay := func(a, b NAT) bool {
		return a.Filtering == Endpoint || a.Mapping == Endpoint && b.Mapping == Endpoint ||
			a.Mapping == Endpoint && a.Filtering == Address
	}
	return oneWay(a, b) || oneWay(b, a)
}
