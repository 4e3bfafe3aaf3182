// A control plane of go-control-plane: an independent implementation for the proxy's tests.
//
// It serves one node. Each line of standard input is a snapshot to serve: {"version": "1", "resources": [...]}, the
// resources as Any in JSON. Each line of standard output is an event: its address, a request, a stream that opened.
//
// Clusters, endpoints, listeners, routes and layers of the runtime also have services of their own. With -cert and -key it speaks TLS, with
// -client-ca only to clients that this authority vouches for.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"log"
	"net"
	"os"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	runtimeservice "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	// Types that resources hold in an Any.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// The one node that is served, whatever it calls itself.
type anyNode struct{}

func (anyNode) ID(*core.Node) string { return "node" }

// An event, as the test reads it.
type event struct {
	Event   string   `json:"event"`
	Address string   `json:"address,omitempty"`
	Variant string   `json:"variant,omitempty"`
	TypeURL string   `json:"type_url,omitempty"`
	Version string   `json:"version,omitempty"`
	Nonce   string   `json:"nonce,omitempty"`
	Names   []string `json:"names,omitempty"`
	Refusal string   `json:"refusal,omitempty"`
	// The headers that a test looks for.
	Authority string `json:"authority,omitempty"`
	Token     string `json:"token,omitempty"`
}

// A stream that was opened, of all types or of one.
func opened(ctx context.Context, variant string, typeURL string) event {
	headers, _ := metadata.FromIncomingContext(ctx)
	first := func(name string) string {
		if values := headers.Get(name); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	return event{Event: "stream", Variant: variant, TypeURL: typeURL,
		Authority: first(":authority"), Token: first("x-token")}
}

var output sync.Mutex

func tell(told event) {
	output.Lock()
	defer output.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		log.Fatalf("telling the test: %v", err)
	}
}

func callbacks() server.CallbackFuncs {
	return server.CallbackFuncs{
		StreamOpenFunc: func(ctx context.Context, _ int64, typeURL string) error {
			tell(opened(ctx, "GRPC", typeURL))
			return nil
		},
		DeltaStreamOpenFunc: func(ctx context.Context, _ int64, typeURL string) error {
			tell(opened(ctx, "DELTA_GRPC", typeURL))
			return nil
		},
		StreamRequestFunc: func(_ int64, request *discovery.DiscoveryRequest) error {
			tell(event{Event: "request", Variant: "GRPC", TypeURL: request.TypeUrl, Version: request.VersionInfo,
				Nonce: request.ResponseNonce, Names: request.ResourceNames, Refusal: request.GetErrorDetail().GetMessage()})
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, request *discovery.DeltaDiscoveryRequest) error {
			tell(event{Event: "request", Variant: "DELTA_GRPC", TypeURL: request.TypeUrl,
				Nonce: request.ResponseNonce, Names: request.ResourceNamesSubscribe,
				Refusal: request.GetErrorDetail().GetMessage()})
			return nil
		},
	}
}

// What the test asks to serve.
type wanted struct {
	Version   string            `json:"version"`
	Resources []json.RawMessage `json:"resources"`
}

func snapshot(line []byte) (*cache.Snapshot, error) {
	var asked wanted
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, err
	}
	// Every type is there, with nothing in it where nothing was said.
	byType := map[resource.Type][]types.Resource{
		resource.ClusterType: {}, resource.EndpointType: {}, resource.ListenerType: {}, resource.RouteType: {},
		resource.RuntimeType: {},
	}
	for _, text := range asked.Resources {
		var envelope anypb.Any
		if err := protojson.Unmarshal(text, &envelope); err != nil {
			return nil, err
		}
		message, err := envelope.UnmarshalNew()
		if err != nil {
			return nil, err
		}
		byType[envelope.TypeUrl] = append(byType[envelope.TypeUrl], message)
	}
	return cache.NewSnapshot(asked.Version, byType)
}

// TLS, where a certificate is given.
func options(cert, key, clientCA string) []grpc.ServerOption {
	if cert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		log.Fatalf("the certificate: %v", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	if clientCA != "" {
		text, err := os.ReadFile(clientCA)
		if err != nil {
			log.Fatalf("the authority of clients: %v", err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			log.Fatalf("%s holds no certificate", clientCA)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(config))}
}

func register(control *grpc.Server, served server.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(control, served)
	clusterservice.RegisterClusterDiscoveryServiceServer(control, served)
	endpointservice.RegisterEndpointDiscoveryServiceServer(control, served)
	listenerservice.RegisterListenerDiscoveryServiceServer(control, served)
	routeservice.RegisterRouteDiscoveryServiceServer(control, served)
	runtimeservice.RegisterRuntimeDiscoveryServiceServer(control, served)
}

func main() {
	log.SetFlags(0)
	cert := flag.String("cert", "", "the certificate of the server, PEM")
	key := flag.String("key", "", "its key, PEM")
	clientCA := flag.String("client-ca", "", "the authority of clients, PEM")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatalf("listening: %v", err)
	}
	snapshots := cache.NewSnapshotCache(true, anyNode{}, nil)
	control := grpc.NewServer(options(*cert, *key, *clientCA)...)
	register(control, server.NewServer(context.Background(), snapshots, callbacks()))
	go func() {
		if err := control.Serve(listener); err != nil {
			log.Fatalf("serving: %v", err)
		}
	}()
	tell(event{Event: "listening", Address: listener.Addr().String()})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	// Ends with the test, which holds the other side of standard input.
	for lines.Scan() {
		next, err := snapshot(lines.Bytes())
		if err != nil {
			log.Fatalf("no snapshot: %v", err)
		}
		if err := snapshots.SetSnapshot(context.Background(), "node", next); err != nil {
			log.Fatalf("setting the snapshot: %v", err)
		}
	}
}
