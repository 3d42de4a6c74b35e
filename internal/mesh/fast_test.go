//go:build !race

package mesh

// slack is how much longer things may take.
const slack = 1
