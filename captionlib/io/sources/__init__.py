"""The files that captions come from: Karpathy's JSON, COCO's, tables and
Flickr8k's token file."""
