module github.com/moggyfleet/moggy/engines/images

go 1.26.0
