"""How clients and servers of lorafleet reach each other: channels, retries, streams, errors on the wire."""
