//go:build !linux

package cache

// yieldToOthers gives the goroutine a thread that runs when others leave it time
// to, where threads have priorities of their own.
func yieldToOthers() {}
