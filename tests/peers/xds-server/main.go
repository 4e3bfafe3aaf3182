// A control plane of go-control-plane: an independent implementation for the proxy's tests.
//
// It serves one node. Each line of standard input is a snapshot to serve: {"version": "1", "resources": [...]}, the
// resources as Any in JSON. Each line of standard output is an event: its address, a request, a stream that opened.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"net"
	"os"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
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
		StreamOpenFunc: func(context.Context, int64, string) error {
			tell(event{Event: "stream", Variant: "GRPC"})
			return nil
		},
		DeltaStreamOpenFunc: func(context.Context, int64, string) error {
			tell(event{Event: "stream", Variant: "DELTA_GRPC"})
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

func main() {
	log.SetFlags(0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatalf("listening: %v", err)
	}
	snapshots := cache.NewSnapshotCache(true, anyNode{}, nil)
	control := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(control,
		server.NewServer(context.Background(), snapshots, callbacks()))
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
