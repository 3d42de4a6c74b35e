// Package wire is the formats of the mesh. (The full text follows.)
package wire
