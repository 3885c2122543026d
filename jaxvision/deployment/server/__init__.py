"""A trained model behind HTTP, for `jaxvision serve`.

    GET  /              a page that classifies a file, or draws images
    POST /predict       images in, classes or values out (a classifier)
    GET  /sample        drawn images as PNG, several as a grid (a GAN or a flow)
    GET  /healthz       200 once the model is warm, 503 before and while stopping
    GET  /livez         200 as long as the process answers at all
    GET  /metrics       counts and times for Prometheus
    GET  /openapi.json  a description of all of these

`POST /predict?top=K` takes one image as the body (`Content-Type: image/*`), or any number
of files as multipart/form-data. The answer has an entry for each image in order:

    {"images": [{"file": "a.png", "predictions": [{"class": "cat", "probability": 0.9}]}]}

with the most probable classes first, or, of a regression, all values ("value") in their
order. An image that cannot be read is an entry with an error among others that can, and status 400
where no other can. Whatever is refused is one line of JSON, {"error": "..."}:

    400  not HTTP, no form, no image, a bad value          405  another method
    404  no such page                                      408  too slow
    411-414, 431  lengths and heads out of bounds          413  too large, too many
    415  another content type or encoding                  429  too much at once
    500  a fault of ours                                   503  not ready, or too slow

429 and 503 carry Retry-After. `limits.Limits` has what is bounded, and by how much.

`GET /sample?class=&seed=&count=` draws as `jaxvision sample` does; image i of a seed is
the same whatever the count is.

One event loop reads and writes (`app`, `guard`, `connections`), a few threads decode, and
one thread computes, for batches of whatever has arrived (`batching`). Starlette and uvicorn
come with the extra `serve`; nothing outside of this package imports it at the top.
"""
