//go:build !race

package multicast

const raceOn = false
