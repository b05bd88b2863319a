//go:build !linux

package proxy

// cork does nothing here: more packets are sent, no more.
func (c *conn) cork(int) {}
