//go:build race

package multicast

// raceOn says that the race detector makes everything some ten times slower.
const raceOn = true
