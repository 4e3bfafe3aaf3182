// h2spec, from its own module: every case against the server at an address, and what failed in a JUnit report.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/summerwind/h2spec"
	"github.com/summerwind/h2spec/config"
)

func main() {
	c := &config.Config{MaxHeaderLen: 4000, Insecure: true}
	flag.StringVar(&c.Host, "host", "127.0.0.1", "address of the server")
	flag.IntVar(&c.Port, "port", 0, "port of the server")
	flag.StringVar(&c.Path, "path", "/", "what is asked for")
	flag.BoolVar(&c.TLS, "tls", false, "connect over TLS")
	flag.BoolVar(&c.Strict, "strict", false, "also the cases that are strict")
	flag.StringVar(&c.JUnitReport, "report", "", "file for the report")
	flag.DurationVar(&c.Timeout, "timeout", 2*time.Second, "how long the server may take for one frame")
	flag.Parse()
	c.Sections = flag.Args()
	success, err := h2spec.Run(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if !success {
		os.Exit(1)
	}
}
