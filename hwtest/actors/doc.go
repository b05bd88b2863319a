// Package actors holds those who play in the stories of hwtest and in the demo:
// the box and its agents as real processes, an origin, a tracker, a swarm of
// foreign seeds. They stand on hosts of a lab.Lab, and the lab stops whatever
// they started. Start reading at StartBox.
package actors
