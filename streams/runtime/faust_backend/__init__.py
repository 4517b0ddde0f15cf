"""The runtime's host on Faust: app, consumer, producer, table and stores."""
