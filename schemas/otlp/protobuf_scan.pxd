# The C types of protobuf_scan.py in the compiled form (setup.py); the Python file has the code and says what it does.
cimport cython
from tallystream.schemas.otlp.protobuf_fields cimport add_attribute, any_value, field, fixed64, is_scalar, key_of

cdef int _RESOURCES
cdef int _RESOURCE
cdef int _SCOPES
cdef int _SCOPE
cdef int _RECORDS
cdef int _SCHEMA_URL
cdef int _NAME
cdef int _TIME
cdef int _SEVERITY
cdef int _SEVERITY_TEXT
cdef int _BODY
cdef int _ATTRIBUTE
cdef int _DROPPED
cdef int _FLAGS
cdef int _TRACE_ID
cdef int _SPAN_ID
cdef int _OBSERVED
cdef int _EVENT_NAME

@cython.locals(at=Py_ssize_t, stop=Py_ssize_t, start=Py_ssize_t, tag=int, looked=bint, found=Py_ssize_t)
cpdef bint is_usual(bytes body) except? False

@cython.locals(resources=Py_ssize_t, found=Py_ssize_t, tag=int, start=Py_ssize_t, inside=Py_ssize_t)
cdef Py_ssize_t _usual_resource(bytes body, Py_ssize_t at, Py_ssize_t stop, bint looked) except? -1

@cython.locals(scopes=Py_ssize_t, found=Py_ssize_t, tag=int, start=Py_ssize_t)
cdef Py_ssize_t _usual_scope(bytes body, Py_ssize_t at, Py_ssize_t stop, bint looked) except? -1

@cython.locals(tag=int, _=Py_ssize_t)
cdef bint _is_log(bytes body, Py_ssize_t at, Py_ssize_t stop) except? False

cdef bint _of_log(int tag) noexcept

@cython.locals(
    found=list, at=Py_ssize_t, stop=Py_ssize_t, mark=Py_ssize_t, first=Py_ssize_t, inner=Py_ssize_t, names_mark=bytes,
    tag=int, kind=int, start=Py_ssize_t, scope=str, index=Py_ssize_t, place=Py_ssize_t, begin=Py_ssize_t, _=int,
)
cpdef list records(bytes body, tally, hint)

@cython.locals(
    attributes=Py_ssize_t, bodies=int, near=Py_ssize_t, tag=int, start=Py_ssize_t, end=Py_ssize_t,
)
cdef bint _may_be_named(bytes body, Py_ssize_t at, Py_ssize_t stop, bytes mark, limits) except? False

@cython.locals(tag=int, start=Py_ssize_t)
cdef _resource_of(bytes body, Py_ssize_t at, Py_ssize_t stop, limits)

@cython.locals(tag=int, start=Py_ssize_t)
cdef str _scope_of(bytes body, Py_ssize_t at, Py_ssize_t stop)

@cython.locals(tag=int, start=Py_ssize_t, name=str)
cdef str _name(bytes body, Py_ssize_t at, Py_ssize_t stop)

@cython.locals(found=_Fields)
cdef _record(
    bytes body, Py_ssize_t at, Py_ssize_t stop, Py_ssize_t index, str scope, resource, limits
)

cdef class _Fields:
    cdef public object time_ns
    cdef public object observed_ns
    cdef public str trace_id
    cdef public str event_name
    cdef public object body
    cdef public dict values

@cython.locals(found=_Fields, bodies=int, tag=int, start=Py_ssize_t)
cdef _Fields _fields(bytes body, Py_ssize_t at, Py_ssize_t stop)
