// The init of a broken release: it ends at once.
package main

func main() { panic("a broken system") }
