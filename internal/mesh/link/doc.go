// Package link is the mesh's contact with the machine: WireGuard's device, the
// sockets it sends and receives by (Bind), and the TUN interface with its
// addresses and routes. Which route a peer's packets take is decided elsewhere
// (package path) and only carried out here.
//
// WireGuard is golang.zx2c4.com/wireguard, unmodified. Four things make it
// live with us: roaming is switched off before the first peer is added (see
// DisableSomeRoamingForBrokenMobileSemantics), so that a peer keeps the
// endpoint it was given; that endpoint is virtual, and finds the route at the
// moment of sending; sources that are no node of the fleet keep their true
// address as endpoint, so that cookies, rate limits and the roaming of plain
// WireGuard clients work as ever; and handshakes of both ends at the same time
// are kept apart, and a session that only one end knows is noticed, below it.
package link
