// A program of WASI that answers requests in the way of CGI, with Go's own net/http.
package main

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
)

func handle(response http.ResponseWriter, request *http.Request) {
	response.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(response, "hello from %s\n", request.URL.RequestURI())
}

func main() {
	if err := cgi.Serve(http.HandlerFunc(handle)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
