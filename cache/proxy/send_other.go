//go:build !linux

package proxy

import "syscall"

// cork does nothing here: more packets are sent, no more.
func (c *conn) cork(int) {}

// setUnsent does nothing here: more waits in sockets.
func (c *conn) setUnsent(int64) {}

func limitUnsent(string, string, syscall.RawConn) error { return nil }

func unsentBudget() int64 { return maxUnsent }
