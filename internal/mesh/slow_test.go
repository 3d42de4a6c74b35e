//go:build race

package mesh

// slack is how much longer things may take: the race detector makes four agents
// on two cores as slow as that.
const slack = 4
