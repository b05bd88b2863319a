// Command cistern is how people and scripts talk to a box.
package main

import (
	"os"

	"github.com/cistern-edge/cistern/admin/cli"
)

// version is set by the linker in releases.
var version = "dev"

func main() { os.Exit(cli.Main(version)) }
